"""The catalogue assistant: what answers when no language model is configured. `catalogue.py` is its front.

Read in this order: `words.py` (the vocabulary), `people.py` and `mentions.py` (names in a question), `conditions.py`
(years, ratings, counts), `questions.py` (what is asked), `conversation.py` (what the turns before leave open),
`answers.py` (what the catalogue says to it), `prose*.py` (how that is said in Chinese and English).
"""
