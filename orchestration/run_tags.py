"""Names by which runs are found: jobs, and the tags that runs carry."""

from assets.at_work import MAIN_RUN_TAG as MAIN_RUN_TAG

MAIN_JOB = "materialize_study"
MAINTENANCE_JOB = "maintenance"
STUDY_TAG = "featurelake/study"
# The UI lists a job's runs by this tag, which its own launches carry; runs in process need it set.
IN_UI_TAGS = {".dagster/repository": "__repository__@featurelake"}
# orchestration/dagster.yaml lets the queue start one run with this tag at a time.
ONE_AT_A_TIME_TAG = "featurelake/one_at_a_time"
