-- The model: who may bind (app, caller, api_key), what there is to bind (pool, x_number), and what is bound
-- (binding, line, slot), with the platform calls that make it true and the answers kept for repeated requests.
--
-- Every hot table's key leads with pool_id. Row ids are made by the process before the insert.

-- Business time: expiry, rest, retention. Leases use clock_timestamp() directly. `up --test-clock` replaces this body.
CREATE FUNCTION broker_now() RETURNS timestamptz
LANGUAGE sql VOLATILE PARALLEL SAFE
AS $$ SELECT clock_timestamp() $$;
COMMENT ON FUNCTION broker_now() IS 'The clock that instances compare for expiry, quarantine and retention.';

CREATE TABLE config_version (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  version   bigint NOT NULL
);
COMMENT ON TABLE config_version IS 'One row. Rises with every change of app, caller, api_key, pool or x_number; instances poll it.';
COMMENT ON COLUMN config_version.singleton IS 'Keeps the table at one row.';
COMMENT ON COLUMN config_version.version IS 'Compared for equality only.';
INSERT INTO config_version (version) VALUES (1);

CREATE TABLE app (
  id            integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name          text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
  mode          text NOT NULL CHECK (mode IN ('axb', 'ax', 'axe', 'axyb', 'x')),
  app_key       text NOT NULL UNIQUE CHECK (length(app_key) BETWEEN 1 AND 128),
  secret_sealed bytea NOT NULL,
  base_url      text NOT NULL CHECK (base_url ~ '^https?://'),
  auth_scheme   text NOT NULL DEFAULT 'aksk' CHECK (auth_scheme IN ('aksk', 'wsse')),
  rate          double precision CHECK (rate > 0),
  burst         integer NOT NULL DEFAULT 1 CHECK (burst BETWEEN 1 AND 100000),
  default_ttl_s integer NOT NULL DEFAULT 86400 CHECK (default_ttl_s = 0 OR default_ttl_s BETWEEN 60 AND 7776000),
  quarantine_s  integer NOT NULL DEFAULT 14400 CHECK (quarantine_s BETWEEN 1 AND 31536000),
  cap           integer NOT NULL DEFAULT 500 CHECK (cap BETWEEN 1 AND 5000),
  policy        text NOT NULL DEFAULT 'pack' CHECK (policy IN ('pack', 'sticky', 'avoid_sticky', 'spread')),
  state         text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'suspended')),
  state_reason  text,
  created_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE app IS 'A platform application: the tenant. Exactly one mode; an X number belongs to one app for its life.';
COMMENT ON COLUMN app.secret_sealed IS 'APP_Secret, encrypted (AES-GCM-SIV; associated data: app, secret, name).';
COMMENT ON COLUMN app.rate IS 'Platform calls a second, over all instances; null = no limit.';
COMMENT ON COLUMN app.burst IS 'Calls that may go out at once after a pause.';
COMMENT ON COLUMN app.default_ttl_s IS 'Lifetime of a binding that names none, in seconds; 0 = no expiry.';
COMMENT ON COLUMN app.quarantine_s IS 'Rest of a (party, X) after a release, in seconds, before another counterpart may share it.';
COMMENT ON COLUMN app.cap IS 'Most live lines on one X. The platform''s own edge is 5,000.';
COMMENT ON COLUMN app.policy IS 'How X is chosen when a request names no policy.';

CREATE TABLE caller (
  id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  app_id     integer NOT NULL REFERENCES app (id),
  name       text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
  weight     integer NOT NULL DEFAULT 1 CHECK (weight BETWEEN 1 AND 1000),
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  UNIQUE (app_id, name)
);
COMMENT ON TABLE caller IS 'An order system that uses an app.';
COMMENT ON COLUMN caller.weight IS 'Share of the app''s call budget when callers compete.';

CREATE TABLE api_key (
  key_hash   bytea PRIMARY KEY CHECK (length(key_hash) = 32),
  caller_id  integer NOT NULL REFERENCES caller (id),
  place      smallint NOT NULL CHECK (place IN (1, 2)),
  scopes     text[] NOT NULL DEFAULT '{bind,read}' CHECK (scopes <@ '{bind,read,reveal,operate}'::text[]),
  hint       text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  revoked_at timestamptz
);
COMMENT ON TABLE api_key IS 'API keys, stored as SHA-256 (the keys are random). A caller has at most two live ones.';
COMMENT ON COLUMN api_key.place IS 'First or second live key: lets a caller rotate without a gap.';
COMMENT ON COLUMN api_key.hint IS 'Last characters of the key, for people.';
CREATE UNIQUE INDEX api_key_live ON api_key (caller_id, place) WHERE revoked_at IS NULL;

CREATE TABLE pool (
  id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  app_id     integer NOT NULL REFERENCES app (id),
  name       text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
  area_code  text NOT NULL CHECK (area_code ~ '^0[0-9]{2,3}$'),
  state      text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'closed')),
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  UNIQUE (app_id, name)
);
COMMENT ON TABLE pool IS 'A named set of X numbers of one app, normally one city. Unit of choice and of placement.';
COMMENT ON COLUMN pool.area_code IS 'City code in domestic form, as 0755.';

CREATE TABLE x_number (
  pool_id      integer NOT NULL REFERENCES pool (id),
  x_id         integer NOT NULL CHECK (x_id BETWEEN 0 AND 99999),
  number       text NOT NULL UNIQUE CHECK (number ~ '^[+][0-9]{3,30}$'),
  state        text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'frozen', 'draining', 'suspended', 'retired')),
  state_reason text,
  created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (pool_id, x_id)
);
COMMENT ON TABLE x_number IS 'Rented X numbers. Only open ones are handed out.';
COMMENT ON COLUMN x_number.x_id IS 'Position in the pool from 0: its bit in the bitmaps of the choice.';
COMMENT ON COLUMN x_number.number IS 'Text with country code, up to 31 characters; not checked as E.164 (15-digit numbers exist).';
COMMENT ON COLUMN x_number.state IS 'frozen: no new lines; draining: on its way out; suspended: the platform refuses it; retired: returned.';

CREATE TABLE line (
  pool_id         integer NOT NULL,
  id              uuid NOT NULL,
  app_id          integer NOT NULL,
  x_id            integer NOT NULL,
  x_key           bigint GENERATED ALWAYS AS (pool_id::bigint * 100000 + x_id) STORED,
  seat            smallint,
  state           text NOT NULL CHECK (state IN ('pending', 'active', 'releasing', 'released', 'failed')),
  direction       text NOT NULL CHECK (direction IN ('both', 'a_to_b', 'b_to_a')),
  calls           integer NOT NULL,
  ttl_s           integer NOT NULL,
  joinable        boolean NOT NULL DEFAULT true,
  changing        boolean NOT NULL DEFAULT false,
  a_key           bigint NOT NULL,
  b_key           bigint NOT NULL,
  third_key       bigint,
  sweep_at        timestamptz,
  confirmed_at    timestamptz,
  expires_at      timestamptz,
  a_sealed        bytea NOT NULL,
  b_sealed        bytea NOT NULL,
  options         text,
  subscription_id text,
  change_failed   text,
  PRIMARY KEY (pool_id, id)
) WITH (fillfactor = 75);
COMMENT ON TABLE line IS 'What the platform holds: X, two parties, a subscription. Ends with its last binding.';
COMMENT ON COLUMN line.x_key IS 'The X as one number: a look-up by it fits one index only, whatever the planner believes of the table.';
COMMENT ON COLUMN line.seat IS 'Place 0..cap-1 on the X while the line lives; null once ended. Unique per X: the cap is exact without a counter.';
COMMENT ON COLUMN line.calls IS 'Number of the newest platform call of this line.';
COMMENT ON COLUMN line.ttl_s IS 'Lifetime that the platform was told, from expires_at - ttl_s on; 0 = none. At most 90 days, renewed while a binding lasts longer.';
COMMENT ON COLUMN line.joinable IS 'Whether another order of the same pair, with the same direction and options, may share the line.';
COMMENT ON COLUMN line.changing IS 'A modify call (number calls) is open: what it wants holds besides what is, until it is settled.';
COMMENT ON COLUMN line.third_key IS 'The party that an open modify brings in: behind the X as much as the one that it replaces.';
COMMENT ON COLUMN line.change_failed IS 'Why the last change was not made; null = it was.';
COMMENT ON COLUMN line.options IS 'Recording, limits, SMS, tones as canonical JSON; null = nothing asked for.';
COMMENT ON COLUMN line.expires_at IS 'When the platform ends it by itself; null = never.';
COMMENT ON COLUMN line.a_key IS 'Keyed 64-bit hash of A: for exclusion; where a match selects, the decrypted number is compared.';
COMMENT ON COLUMN line.sweep_at IS 'When the sweep looks at the line: never later than the end of a binding or the time to renew; not moved by the confirmation, so that stays a HOT update.';
COMMENT ON COLUMN line.confirmed_at IS 'When the platform''s confirmation was committed; null = the platform may not know it.';
COMMENT ON COLUMN line.a_sealed IS 'A, encrypted (associated data: line, a, pool_id, id).';
COMMENT ON COLUMN line.subscription_id IS 'The platform''s id of the binding.';
CREATE UNIQUE INDEX line_seat ON line (x_key, seat) WHERE seat IS NOT NULL;
CREATE INDEX line_sweep ON line (sweep_at) WHERE sweep_at IS NOT NULL;

CREATE TABLE binding (
  pool_id    integer NOT NULL,
  id         uuid NOT NULL,
  app_id     integer NOT NULL,
  caller_id  integer NOT NULL,
  line_id    uuid NOT NULL,
  state      text NOT NULL CHECK (state IN ('pending', 'active', 'releasing', 'released', 'failed')),
  reason     text,
  ttl_s      integer NOT NULL,
  version    integer NOT NULL DEFAULT 1,
  flipped    boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL,
  expires_at timestamptz,
  ended_at   timestamptz,
  chosen     text,
  order_id   text,
  user_data  text,
  metadata   jsonb,
  moving     uuid,
  moves      uuid,
  PRIMARY KEY (pool_id, id)
) WITH (fillfactor = 80);
COMMENT ON TABLE binding IS 'One order''s claim on a line.';
COMMENT ON COLUMN binding.reason IS 'Why it ended or failed: released, expired, withdrawn, or a stable code.';
COMMENT ON COLUMN binding.expires_at IS 'Confirmation + ttl_s; null while pending and for ttl_s 0.';
COMMENT ON COLUMN binding.version IS 'Raised by every change of the binding or its line, so that two changes never cross.';
COMMENT ON COLUMN binding.flipped IS 'The order''s A is the line''s B: it shares a line that another order of the pair made the other way round.';
COMMENT ON COLUMN binding.moving IS 'The row that holds another line for this binding until the platform has confirmed it; it goes there while that is pending.';
COMMENT ON COLUMN binding.moves IS 'This row is no order''s: it holds a new line for the binding named, and the old one once they have changed places.';
COMMENT ON COLUMN binding.chosen IS 'Who chose the X and why: the policy and its reason, or that a line was joined.';
COMMENT ON COLUMN binding.user_data IS 'The order system''s own words. Never sent to the platform.';
-- Without pool_id: a look-up that named it would fit the primary key's first column too, and a planner that believes the
-- table to be empty cannot tell which is better. Line ids are unique by themselves.
CREATE INDEX binding_line ON binding (line_id);

CREATE TABLE slot (
  pool_id         integer NOT NULL,
  x_id            integer NOT NULL,
  party_key       bigint NOT NULL,
  counterpart_key bigint NOT NULL,
  until           timestamptz NOT NULL,
  line_id         uuid NOT NULL,
  rests_until     timestamptz,
  PRIMARY KEY (pool_id, party_key, x_id)
) WITH (fillfactor = 80);
COMMENT ON TABLE slot IS 'A party occupies an X (until = infinity) or rests on it (until = end of the rest). The last guard against double use.';
COMMENT ON COLUMN slot.until IS 'Rest ends by reading the clock, not by a sweep; re-use overwrites the row. Not indexed on purpose.';
COMMENT ON COLUMN slot.counterpart_key IS 'The other side: the same pair may come back to its X before the rest has ended.';
COMMENT ON COLUMN slot.rests_until IS 'End of the rest that the same pair broke off by coming back: if nothing comes of that, the rest goes on.';
COMMENT ON COLUMN slot.line_id IS 'The line that put the row here; only it may end it.';

CREATE TABLE platform_call (
  pool_id      integer NOT NULL,
  line_id      uuid NOT NULL,
  no           integer NOT NULL,
  app_id       integer NOT NULL,
  op           text NOT NULL CHECK (op IN ('bind', 'unbind', 'modify')),
  state        text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'settled')),
  token        integer NOT NULL DEFAULT 1,
  attempt      smallint NOT NULL DEFAULT 0,
  claimable_at timestamptz NOT NULL,
  created_at   timestamptz NOT NULL,
  settled_at   timestamptz,
  outcome      text,
  http         smallint,
  code         text,
  wanted       jsonb,
  PRIMARY KEY (pool_id, line_id, no)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE platform_call IS 'One request to the platform, durable until settled. One open call at a time per line.';
COMMENT ON COLUMN platform_call.token IS 'Raised with every claim: who does not hold the newest token settles nothing. 0 = nobody has had it yet.';
COMMENT ON COLUMN platform_call.attempt IS 'Times an owner began it; part of what the platform is told, so that an echo names its attempt.';
COMMENT ON COLUMN platform_call.wanted IS 'What a modify is to make of the line: a or b {key, sealed}, direction, options, ttl_s; absent = unchanged. before: the line as it was, sealed for a row of its own.';
COMMENT ON COLUMN platform_call.claimable_at IS 'End of the owner''s lease: from then on any instance may take the call over.';
CREATE INDEX platform_call_claimable ON platform_call (claimable_at) WHERE state = 'open';

CREATE TABLE idempotency (
  app_id       integer NOT NULL,
  caller_id    integer NOT NULL,
  key_hash     bytea NOT NULL,
  request_hash bytea NOT NULL,
  token        integer NOT NULL DEFAULT 1,
  busy_until   timestamptz NOT NULL,
  created_at   timestamptz NOT NULL,
  pool_id      integer,
  binding_id   uuid,
  status       smallint,
  location     text,
  body         bytea,
  PRIMARY KEY (app_id, caller_id, key_hash)
) WITH (fillfactor = 60);
COMMENT ON TABLE idempotency IS 'The first answer to each Idempotency-Key, replayed for 24 hours.';
COMMENT ON COLUMN idempotency.token IS 'Raised when a twin takes over after busy_until: the slower one can then neither bind nor answer.';
COMMENT ON COLUMN idempotency.request_hash IS 'Keyed hash of method, path and canonical JSON body.';
COMMENT ON COLUMN idempotency.binding_id IS 'The binding made under this key, set in the transaction that makes it.';
CREATE INDEX idempotency_age ON idempotency (created_at);

-- Losing this table in a crash is harmless: an empty state starts without burst.
CREATE UNLOGGED TABLE limiter (
  app_id integer PRIMARY KEY,
  tat    timestamptz NOT NULL
) WITH (fillfactor = 20);
COMMENT ON TABLE limiter IS 'GCRA state per app: the theoretical arrival time of the next platform call.';

CREATE FUNCTION bump_config_version() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
  UPDATE config_version SET version = version + 1;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION bump_config_version() IS 'Tells instances to reload what they cache.';
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON app FOR EACH STATEMENT EXECUTE FUNCTION bump_config_version();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON caller FOR EACH STATEMENT EXECUTE FUNCTION bump_config_version();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON api_key FOR EACH STATEMENT EXECUTE FUNCTION bump_config_version();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON pool FOR EACH STATEMENT EXECUTE FUNCTION bump_config_version();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON x_number FOR EACH STATEMENT EXECUTE FUNCTION bump_config_version();
