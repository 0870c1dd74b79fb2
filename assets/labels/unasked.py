"""Questions that a failed label leaves without a foil: they stand among the others, unsent.

Drawing another foil would change the question, and with it a score of a feature that nothing failed
of. Unasked, it counts as one without an answer: the score is of fewer contexts, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from assets.labels.score_questions import ScoreTask
from assets.shared.chat import ChatReply, ChatRequest


def to_send(tasks: Sequence[ScoreTask]) -> list[ChatRequest]:
    """The requests of the tasks that are asked, in order."""
    return [task.request for task in tasks if task.not_asked is None]


def replies_of(tasks: Sequence[ScoreTask], replies: Sequence[ChatReply]) -> list[ChatReply]:
    """A reply for each task: `replies` to `to_send(tasks)`, and failed ones of those not asked."""
    sent = iter(replies)
    return [
        next(sent)
        if task.not_asked is None
        else ChatReply(task.request, "", "", "failed", reason=task.not_asked, n_calls=0)
        for task in tasks
    ]
