"""What a run says in a terminal: one short line a message, without Dagster's own events.

The event log in the UI keeps everything; this is only for people who watch `make demo`.
"""

import logging
import sys

import dagster as dg


class _ShortLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        details = getattr(record, "dagster_meta", {})
        where = details.get("step_key") or details.get("job_name") or ""
        message = details.get("orig_message") or record.getMessage()
        clock = self.formatTime(record, "%H:%M:%S")
        mark = "" if record.levelno <= logging.INFO else f"{record.levelname}: "
        return f"{clock}  {where:<16.16}  {mark}{message}"


def _is_for_people(record: logging.LogRecord) -> bool:
    return not getattr(record, "dagster_meta", {}).get("dagster_event")


@dg.logger(config_schema={"level": dg.Field(str, default_value="INFO", is_required=False)})
def console_logger(context: dg.InitLoggerContext) -> logging.Logger:
    """Short lines on standard error."""
    logger = logging.Logger("featurelake", level=context.logger_config["level"])
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_ShortLines())
    handler.addFilter(_is_for_people)
    logger.addHandler(handler)
    return logger
