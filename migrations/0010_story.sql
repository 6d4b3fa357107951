COMMENT ON SCHEMA public IS 'The binding broker.';
