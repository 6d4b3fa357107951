-- Voice files: what an app may name in its binds. The platform takes only those that were approved in its console.

CREATE TABLE tone (
  app_id       integer NOT NULL REFERENCES app (id),
  name         text NOT NULL CHECK (name ~ '^[0-9A-Za-z_.@-]{1,124}[.]wav$'),
  state        text NOT NULL DEFAULT 'draft' CHECK (state IN ('draft', 'submitted', 'approved', 'rejected')),
  state_reason text CHECK (length(state_reason) BETWEEN 1 AND 200),
  state_since  timestamptz NOT NULL DEFAULT statement_timestamp(),
  sha256       bytea NOT NULL GENERATED ALWAYS AS (sha256(content)) STORED,
  size_bytes   integer NOT NULL GENERATED ALWAYS AS (octet_length(content)) STORED,
  duration_ms  integer NOT NULL CHECK (duration_ms >= 0),
  content      bytea NOT NULL CHECK (octet_length(content) BETWEEN 1 AND 2000000),
  created_at   timestamptz NOT NULL DEFAULT statement_timestamp(),
  PRIMARY KEY (app_id, name)
);
COMMENT ON TABLE tone IS 'Voice files of an app: A-law, 8 kHz, mono. Only approved ones may be named in a bind.';
COMMENT ON COLUMN tone.app_id IS 'The app in whose console the file is uploaded.';
COMMENT ON COLUMN tone.name IS 'File name as the platform knows it.';
COMMENT ON COLUMN tone.state IS
  'draft: only here; submitted: uploaded in the console; approved, rejected: what the platform made of it.';
COMMENT ON COLUMN tone.state_reason IS 'Why it was rejected; for people.';
COMMENT ON COLUMN tone.state_since IS 'When the state was last changed.';
COMMENT ON COLUMN tone.sha256 IS 'Of the content.';
COMMENT ON COLUMN tone.size_bytes IS 'Length of the content; the platform takes 2 MB.';
COMMENT ON COLUMN tone.duration_ms IS 'How long it plays.';
COMMENT ON COLUMN tone.content IS 'The wav file as it is to be uploaded. Other content makes the tone a draft again.';
COMMENT ON COLUMN tone.created_at IS 'When a file of this name was first added.';

CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON tone FOR EACH STATEMENT EXECUTE FUNCTION bump_config_version();
COMMENT ON TABLE config_version IS
  'One row. Rises with every change of app, caller, api_key, pool, x_number or tone; instances poll it.';
