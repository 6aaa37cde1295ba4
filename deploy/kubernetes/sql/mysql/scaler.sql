-- The user that KEDA counts with: it may read three tables, and nothing else. Run it as an administrator, in the schema
-- of the project, once the tables are there; MySQL makes up the password and prints it:
--
--   mysql --user=root --password --database=synicix < scaler.sql
CREATE USER 'synicix_scaler'@'%' IDENTIFIED BY RANDOM PASSWORD WITH MAX_USER_CONNECTIONS 5;
GRANT SELECT ON `training_task` TO 'synicix_scaler'@'%';
GRANT SELECT ON `__training_result` TO 'synicix_scaler'@'%';
GRANT SELECT ON `~~training_result` TO 'synicix_scaler'@'%';
