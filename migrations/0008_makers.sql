-- Who stands at the beginning of a key: `agent:<did>`, `device:<did>/<deviceId>` or `operator`; a key that a key made has its
-- maker's. Nobody approves its own request for a device by way of a key. NULL where an older version made the key.
ALTER TABLE api_keys ADD COLUMN first_maker TEXT;
