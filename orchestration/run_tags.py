"""Names by which runs are found: the main job, and the tags that runs carry."""

MAIN_JOB = "materialize_study"
STUDY_TAG = "featurelake/study"
MAIN_RUN_TAG = "featurelake/main_run"
# The UI lists a job's runs by this tag, which its own launches carry; runs in process need it set.
IN_UI_TAGS = {".dagster/repository": "__repository__@featurelake"}
# orchestration/dagster.yaml lets the queue start one run with this tag at a time.
ONE_AT_A_TIME_TAG = "featurelake/one_at_a_time"
