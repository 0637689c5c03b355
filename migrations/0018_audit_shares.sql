-- What one actor may write into the audit in an hour, kept by a trigger, so that no statement can leave it out: nobody floods what
-- tells of the others. An action that is rare with its actor is recorded beyond the share, so that a flood of one hides no other.
-- Operators, and the proxy itself, are recorded without a bound. An hour is at_ms / 3,600,000.

CREATE TABLE audit_usage (
  actor TEXT NOT NULL,
  hour INTEGER NOT NULL,
  action TEXT NOT NULL,
  entries INTEGER NOT NULL,
  -- What was left out; housekeeping says so by one entry when the hour is over.
  left_out INTEGER NOT NULL,
  PRIMARY KEY (actor, hour, action)
) STRICT, WITHOUT ROWID;

CREATE INDEX audit_usage_by_hour ON audit_usage (hour);

CREATE TRIGGER audit_share BEFORE INSERT ON audit
WHEN NEW.operator IS NULL AND NEW.actor NOT IN ('operator', 'sallyport')
BEGIN
  INSERT INTO audit_usage (actor, hour, action, entries, left_out)
    SELECT NEW.actor, NEW.at_ms / 3600000, NEW.action, 0, 0
    WHERE NOT EXISTS (SELECT 1 FROM audit_usage
      WHERE actor = NEW.actor AND hour = NEW.at_ms / 3600000 AND action = NEW.action);
  UPDATE audit_usage SET
    entries = entries + IIF(entries < 20 OR (SELECT SUM(each.entries) FROM audit_usage AS each
      WHERE each.actor = NEW.actor AND each.hour = NEW.at_ms / 3600000) < 1000, 1, 0),
    left_out = left_out + IIF(entries < 20 OR (SELECT SUM(each.entries) FROM audit_usage AS each
      WHERE each.actor = NEW.actor AND each.hour = NEW.at_ms / 3600000) < 1000, 0, 1)
    WHERE actor = NEW.actor AND hour = NEW.at_ms / 3600000 AND action = NEW.action;
  -- Once something was left out in an hour, what was counted but not written there is all that follows.
  SELECT RAISE(IGNORE) FROM audit_usage
    WHERE actor = NEW.actor AND hour = NEW.at_ms / 3600000 AND action = NEW.action AND left_out > 0;
END;

CREATE INDEX audit_by_subject_and_action ON audit (subject, action, at_ms, id);
