-- The whole profile of an app, limits of callers, and numbers that move between pools.
--
-- Constraints are exchanged for wider ones, on tables of configuration: as many rows as there are apps and rented numbers,
-- read in no time, and binds never write to them.
-- squawk-ignore-file ban-drop-constraint, constraint-missing-not-valid, require-concurrent-index-creation

ALTER TABLE app
  ADD COLUMN max_ttl_s integer NOT NULL DEFAULT 31536000 CHECK (max_ttl_s BETWEEN 60 AND 31536000),
  ADD COLUMN recording boolean NOT NULL DEFAULT true,
  ADD COLUMN sms boolean NOT NULL DEFAULT true,
  ADD COLUMN extension_digits smallint NOT NULL DEFAULT 4 CHECK (extension_digits BETWEEN 1 AND 4),
  ADD COLUMN heat integer CHECK (heat BETWEEN 1 AND 100000),
  ADD COLUMN event_url text CHECK (event_url ~ '^https?://'),
  ADD COLUMN cdr_url text CHECK (cdr_url ~ '^https?://'),
  ADD COLUMN sms_url text CHECK (sms_url ~ '^https?://'),
  ADD COLUMN channel text CHECK (length(channel) BETWEEN 1 AND 64),
  ADD COLUMN industry text CHECK (length(industry) BETWEEN 1 AND 64),
  ADD COLUMN call_script text CHECK (length(call_script) BETWEEN 1 AND 2000),
  ADD COLUMN next_secret_sealed bytea,
  ADD COLUMN previous_secret_sealed bytea,
  DROP CONSTRAINT app_default_ttl_s_check;
ALTER TABLE app
  ADD CONSTRAINT app_default_ttl_s_check CHECK (default_ttl_s = 0 OR default_ttl_s BETWEEN 60 AND 31536000),
  ADD CONSTRAINT app_ttl_order CHECK (default_ttl_s <= max_ttl_s),
  ADD CONSTRAINT app_two_secrets CHECK (next_secret_sealed IS NULL OR previous_secret_sealed IS NULL);
COMMENT ON COLUMN app.max_ttl_s IS 'Longest lifetime that a binding may ask for, in seconds.';
COMMENT ON COLUMN app.recording IS 'Whether the platform may record calls of this app.';
COMMENT ON COLUMN app.sms IS 'Whether the platform passes short messages of this app on.';
COMMENT ON COLUMN app.extension_digits IS 'Digits of an extension, as the platform has them for this app; mode AXE only.';
COMMENT ON COLUMN app.heat IS 'Calls an hour that one X may carry before carriers flag it; null = no limit.';
COMMENT ON COLUMN app.event_url IS 'Address that the platform was given for call events.';
COMMENT ON COLUMN app.cdr_url IS 'Address that the platform was given for call detail records.';
COMMENT ON COLUMN app.sms_url IS 'Address that the platform was given for short messages.';
COMMENT ON COLUMN app.channel IS 'Through whom the business comes; for people.';
COMMENT ON COLUMN app.industry IS 'What business the calls are about; for people.';
COMMENT ON COLUMN app.call_script IS 'What the people on the phone say; for people and for the platform''s review.';
COMMENT ON COLUMN app.next_secret_sealed IS
  'A secret that waits for its promotion. Sealed as secret_sealed is (associated data: app, secret, name), so a promotion moves it as it stands.';
COMMENT ON COLUMN app.previous_secret_sealed IS 'The secret before the last promotion, until it is dropped: pushes signed with it are still accepted.';

ALTER TABLE caller
  ADD COLUMN requests_per_s double precision CHECK (requests_per_s > 0 AND requests_per_s <= 100000),
  ADD COLUMN max_live_bindings integer CHECK (max_live_bindings >= 1);
COMMENT ON COLUMN caller.requests_per_s IS 'Requests a second that the caller may send; null = no limit.';
COMMENT ON COLUMN caller.max_live_bindings IS 'Live bindings that the caller may have at a time; null = no limit.';

-- A number that moves to another pool leaves its row behind, so that lines of that time still find their X.
ALTER TABLE x_number
  DROP CONSTRAINT x_number_state_check,
  ADD CONSTRAINT x_number_state_check
    CHECK (state IN ('open', 'frozen', 'draining', 'suspended', 'retired', 'moved')),
  DROP CONSTRAINT x_number_number_key;
CREATE UNIQUE INDEX x_number_number ON x_number (number) WHERE state <> 'moved';
COMMENT ON COLUMN x_number.state IS
  'frozen: no new lines; draining: on its way out; suspended: the platform refuses it; retired: returned; moved: in another pool now.';
