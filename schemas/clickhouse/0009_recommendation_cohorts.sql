-- What was known of a user and a title before a playback, so that lists are judged for new users and new titles apart.

ALTER TABLE {database}.recommendation_outcomes
    ADD COLUMN IF NOT EXISTS user_completions Nullable(UInt32) COMMENT 'Titles that the user had completed before, as far as they are remembered; NULL: not noted' CODEC(ZSTD(1)) AFTER watched_before,
    ADD COLUMN IF NOT EXISTS title_completions Nullable(UInt32) COMMENT 'Completions of the title before; NULL: not noted' CODEC(ZSTD(1)) AFTER user_completions,
    ADD COLUMN IF NOT EXISTS title_seen_at Nullable(DateTime64(3, 'UTC')) COMMENT 'received_at of the first playback of the title that the model knows; NULL: not noted' CODEC(ZSTD(1)) AFTER title_completions;

ALTER TABLE {database}.recommendations COMMENT COLUMN IF EXISTS scores 'Score of each title, comparable within one list; 0: a new title that is given a chance. Of the list for everybody: shares of what was completed of late';
