-- name: begin
SELECT outcome, no, renewal_s
FROM begin_change($1, make_interval(secs => $2), $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::text::jsonb, $13, $14);

-- name: settle
SELECT settle_change($1, $2, $3, $4, $5::smallint, $6, $7, make_interval(secs => $8), make_interval(secs => $9),
                     $10, $11::smallint, $12, make_interval(secs => $13), $14, $15) AS line_state;

-- name: move
SELECT begin_move($1, make_interval(secs => $2), $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                  $19, $20, $21, $22, $23) AS outcome;
