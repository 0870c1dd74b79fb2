"""What the judge of a label is asked: does a text, or a marking of its words, fit the label.

Each question has a form for LLMs that answer yes or no (graded by the answer's probabilities) and
one for small LLMs, which are asked for a topic by a schema that allows the label alone (its
log-probability is read) or the label and a foil (a forced choice; judging.py says why). Detection
and fuzzing follow delphi (Paulo et al., arXiv 2410.13928), simulation Bills et al. 2023, "Language
models can explain neurons in language models", asked word by word since chat endpoints give no
probabilities of the prompt's own tokens. The examples' themes are not concepts of the bundled
corpus.
"""

from __future__ import annotations

import json

from assets.labels.prompt import Prompt

RATINGS = tuple(range(10))


def _label(text: str) -> str:
    return json.dumps({"label": text})


LABEL_FITS_TEXT = Prompt(
    name="label_fits_text",
    system="You say whether a text fits a label. You answer Yes or No.",
    template="Label: {label}\nText: {text}\nDoes the text fit the label?",
    examples=(
        ({"label": "weather", "text": "Heavy snow closed the mountain road."}, "Yes"),
        ({"label": "furniture", "text": "Heavy snow closed the mountain road."}, "No"),
        ({"label": "furniture", "text": "They sold the old sofa last week."}, "Yes"),
        ({"label": "music", "text": "They sold the old sofa last week."}, "No"),
    ),
    max_tokens=1,
    top_logprobs=20,
)
LABEL_FITS_MARKS = Prompt(
    name="label_fits_marks",
    system=(
        "Some words of a text stand between « and ». You say whether they are the words that a "
        "label means. You answer Yes or No."
    ),
    template="Label: {label}\nText: {text}\nDoes the label mean the marked words?",
    examples=(
        ({"label": "weather", "text": "Heavy «snow» closed the mountain road."}, "Yes"),
        ({"label": "weather", "text": "Heavy snow closed the mountain «road»."}, "No"),
        ({"label": "furniture", "text": "They «sold» the old sofa last «week»."}, "No"),
        ({"label": "furniture", "text": "A «chair» and a «desk» stood by the door."}, "Yes"),
    ),
    max_tokens=1,
    top_logprobs=20,
)

# Asked with a schema that allows the label only, or the label and a foil.
TOPIC_OF_TEXT = Prompt(
    name="topic_of_text",
    system="Name the topic of the text.",
    template="Text: {text}",
    examples=(
        ({"text": "Heavy snow closed the mountain road."}, _label("weather")),
        ({"text": "Penso che domani andremo al mare."}, _label("Italian language")),
        ({"text": "They sold the old sofa last week."}, _label("furniture")),
        ({"text": "A purple curtain hung in the hall."}, _label("the colour purple")),
        ({"text": "She plays the guitar in a small band."}, _label("music")),
    ),
    max_tokens=64,
)
TOPIC_OF_MARKS = Prompt(
    name="topic_of_marks",
    system="Name the topic of the words between « and ».",
    template="Text: {text}",
    examples=(
        ({"text": "Heavy «snow» closed the mountain road."}, _label("weather")),
        ({"text": "Heavy snow closed the «mountain» road."}, _label("landscape")),
        ({"text": "They sold the old «sofa» last week."}, _label("furniture")),
        ({"text": "She plays the «guitar» in a small band."}, _label("music")),
        ({"text": "She plays the guitar in a «small» band."}, _label("size")),
    ),
    max_tokens=64,
)

# One digit: the expected rating is read from its probabilities.
RATE_WORD = Prompt(
    name="rate_word",
    system=(
        "A label says what a feature of a language model detects. You rate how active the feature "
        "is at the word between « and »: 0 is not at all, 9 is as active as it gets. You answer "
        "with one digit."
    ),
    template="Label: {label}\nText: {text}\nRating of the marked word:",
    examples=(
        ({"label": "weather", "text": "Heavy «snow» closed the mountain road."}, "9"),
        ({"label": "weather", "text": "Heavy snow closed the mountain «road»."}, "0"),
        ({"label": "furniture", "text": "They sold the «old» sofa last week."}, "2"),
        ({"label": "music", "text": "They sold the old «sofa» last week."}, "0"),
    ),
    max_tokens=1,
    top_logprobs=20,
)

# Foils for a fit in which no other feature has a label.
SPARE_FOILS = ("weather", "furniture", "music", "Italian language", "clothes", "travel", "family")
