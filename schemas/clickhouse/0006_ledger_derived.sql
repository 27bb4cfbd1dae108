-- What a stage sends to the next one is counted in the ledger, so that a chain can be verified range by range.

ALTER TABLE {database}.ledger ADD COLUMN IF NOT EXISTS derived Map(String, UInt64) DEFAULT map() COMMENT 'Messages that were derived from the range for the next stage, by the full name of the internal topic; a topic that is not named was not counted' AFTER rows;
