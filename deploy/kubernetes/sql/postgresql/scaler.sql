-- The user that KEDA counts with: it may read three tables, and nothing else. Run it with psql, as whoever made the tables,
-- if that user may make others, or as an administrator:
--
--   SCALER_PASSWORD=... psql --dbname=synicix --file=scaler.sql
--
-- For a schema of another name add --set=schema=NAME.
\set ON_ERROR_STOP on
\getenv password SCALER_PASSWORD
\if :{?schema}
\else
\set schema synicix
\endif
BEGIN;
CREATE ROLE synicix_scaler LOGIN PASSWORD :'password' CONNECTION LIMIT 5;
ALTER ROLE synicix_scaler SET default_transaction_read_only = on;
ALTER ROLE synicix_scaler SET statement_timeout = '10s';
GRANT USAGE ON SCHEMA :"schema" TO synicix_scaler;
GRANT SELECT ON :"schema".training_task, :"schema".__training_result, :"schema"."~~training_result" TO synicix_scaler;
COMMIT;
