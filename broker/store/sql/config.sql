-- What instances cache of apps, callers, keys, pools, numbers and tones.

-- name: version
SELECT version FROM config_version;

-- name: lock_table
SELECT current_setting('max_locks_per_transaction')::integer * current_setting('max_connections')::integer AS room;

-- name: apps
SELECT id, name, mode, app_key, secret_sealed, next_secret_sealed, previous_secret_sealed, base_url, auth_scheme, rate,
       burst, default_ttl_s, max_ttl_s, quarantine_s, cap, policy, recording, sms, owner,
       extension_digits, extensions_per_x, recreate, retention_days, requests_per_s, max_live_bindings, withdraw_after_s, release_grace_s, sample_share, sample_factor, heat, state, state_reason,
       bind_rate, unbind_rate, modify_rate, query_rate, push_wsse, push_from, close_tone,
       shadow, shadow_changed_at,
       (SELECT count(*) FROM caller AS c WHERE c.app_id = app.id) AS callers,
       coalesce((SELECT p.gated FROM drift_policy AS p WHERE p.app_id = app.id), false) AS gated,
       coalesce((SELECT p.absent = 'rebind' FROM drift_policy AS p WHERE p.app_id = app.id), true) AS rebinds
FROM app ORDER BY id;

-- name: keys
SELECT k.key_hash, k.scopes, k.hint, c.id AS caller_id, c.name AS caller, c.app_id, c.requests_per_s, c.max_live_bindings
FROM api_key AS k JOIN caller AS c ON c.id = k.caller_id
WHERE k.revoked_at IS NULL;

-- name: weights
SELECT id, weight FROM caller;

-- name: pools
SELECT id, app_id, name, area_code, state, routing, typo_safe, low_percent FROM pool ORDER BY app_id, name;

-- name: numbers
SELECT pool_id, x_id, number, state FROM x_number WHERE state <> 'moved' ORDER BY pool_id, x_id;

-- name: tones
SELECT app_id, name, state FROM tone ORDER BY app_id, name;

-- name: approved_tones
SELECT a.app_key, t.name FROM tone AS t JOIN app AS a ON a.id = t.app_id
WHERE t.state = 'approved' AND a.base_url = $1;

-- name: add_app
INSERT INTO app (name, mode, app_key, secret_sealed, base_url, rate, burst, quarantine_s, cap)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (name) DO UPDATE SET base_url = excluded.base_url, secret_sealed = excluded.secret_sealed
RETURNING id;

-- name: own_app
UPDATE app SET owner = $2 WHERE id = $1 AND owner IS NULL;

-- name: add_caller
INSERT INTO caller (app_id, name) VALUES ($1, $2)
ON CONFLICT (app_id, name) DO UPDATE SET name = excluded.name
RETURNING id;

-- name: add_key
INSERT INTO api_key (key_hash, caller_id, place, scopes, hint) VALUES ($1, $2, 1, $3, $4)
ON CONFLICT (key_hash) DO NOTHING;

-- name: add_pool
INSERT INTO pool (app_id, name, area_code) VALUES ($1, $2, $3)
ON CONFLICT (app_id, name) DO UPDATE SET name = excluded.name
RETURNING id;

-- name: route_pool
UPDATE pool SET routing = $2 WHERE id = $1 AND routing <> $2;

-- name: add_number
INSERT INTO x_number (pool_id, x_id, number)
VALUES ($1, (SELECT coalesce(max(x.x_id) + 1, 0) FROM x_number AS x WHERE x.pool_id = $1), $2)
ON CONFLICT DO NOTHING;

-- name: add_approved_tone
INSERT INTO tone (app_id, name, content, duration_ms, state) VALUES ($1, $2, $3, $4, 'approved')
ON CONFLICT (app_id, name) DO NOTHING;
