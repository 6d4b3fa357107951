-- The outbound limit, and what the platform has refused: shared by all instances.

-- name: take_slots
SELECT at_s, every_s, granted, late_s, tat
FROM take_slots($1, $2, $3, $4, make_interval(secs => $5), make_interval(secs => $6), make_interval(secs => $7), $8, $9,
                $10);

-- name: give_back
SELECT give_back($1, $2, $3, $4) AS given;

-- name: stops
SELECT egress, app_id, reason, access, CASE WHEN until < 'infinity' THEN
         extract(epoch FROM until - clock_timestamp())::double precision END AS left_s
FROM platform_stop WHERE until > clock_timestamp() AND egress IN ('', $1);

-- name: stop_for_flow
SELECT stop_for_flow($1, make_interval(secs => $2)) AS pace;

-- name: stop_source
SELECT stop_source($1, make_interval(secs => $2));

-- name: note_bad_digest
SELECT note_bad_digest($1, $2) AS shut;

-- name: digest_passed
DELETE FROM platform_stop WHERE egress = '' AND app_id = $1 AND reason = 'bad_secret' AND access = $2 AND until < 'infinity';
