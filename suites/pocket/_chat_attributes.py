"""The kinds of facts that pocket conversations are about, and how each is said, asked, changed and answered."""

from __future__ import annotations

from dataclasses import dataclass

from suites.pocket import lexicon
from suites.pocket._chat_talk import article


@dataclass(frozen=True)
class Attribute:
    """One kind of fact: how it is said, asked, changed and answered, of the user ("I") and of a third person ("{n}").

    The first wording of `theirs` is also the answer's form; `{v}` is the value.
    """

    key: str
    values: tuple[str, ...]
    mine: tuple[str, ...]
    ask_me: tuple[str, ...]
    you: str
    theirs: tuple[str, ...]
    ask_them: tuple[str, ...]
    who: str
    change_me: tuple[str, ...]
    change_them: tuple[str, ...]


_HOBBIES = tuple("music travel gardening cooking painting reading sailing cycling dancing chess football".split())

ATTRIBUTES = (
    Attribute(
        "place",
        lexicon.PLACES,
        ("I live in {v}.", "My home is in {v}."),
        ("Where do I live?", "In which city do I live?"),
        "You live in {v}.",
        ("{n} lives in {v}.", "The home of {n} is in {v}."),
        ("Where does {n} live?", "In which city does {n} live?"),
        "Who lives in {v}?",
        ("I moved to {v}.", "I live in {v}."),
        ("{n} moved to {v}.", "{n} lives in {v}."),
    ),
    Attribute(
        "job",
        tuple(article(job) for job in lexicon.JOBS),
        ("I work as {v}.", "I am {v}."),
        ("What is my job?", "What do I work as?"),
        "You work as {v}.",
        ("{n} works as {v}.", "{n} is {v}."),
        ("What is the job of {n}?", "What does {n} work as?"),
        "Who works as {v}?",
        ("I became {v}.", "I work as {v}."),
        ("{n} became {v}.", "{n} works as {v}."),
    ),
    Attribute(
        "pet",
        tuple(article(animal) for animal in lexicon.ANIMALS),
        ("I have {v}.", "My pet is {v}."),
        ("Which animal do I have?", "What pet do I have?"),
        "You have {v}.",
        ("{n} has {v}.", "The pet of {n} is {v}."),
        ("Which animal does {n} have?", "What pet does {n} have?"),
        "Who has {v}?",
        ("my pet is {v}.", "I have {v}."),
        ("{n} has {v}.", "the pet of {n} is {v}."),
    ),
    Attribute(
        "color",
        lexicon.COLORS,
        ("My favorite color is {v}.", "I like the color {v} best."),
        ("What is my favorite color?", "Which color do I like best?"),
        "You like {v} best.",
        ("{n} likes {v} best.", "The favorite color of {n} is {v}."),
        ("What is the favorite color of {n}?", "Which color does {n} like best?"),
        "Who likes {v} best?",
        ("my favorite color is {v}.", "I like the color {v} best."),
        ("the favorite color of {n} is {v}.", "{n} likes {v} best."),
    ),
    Attribute(
        "lunch",
        lexicon.FOODS,
        ("I had {v} for lunch.", "My lunch was {v}."),
        ("What did I have for lunch?", "What was my lunch?"),
        "You had {v} for lunch.",
        ("{n} had {v} for lunch.", "The lunch of {n} was {v}."),
        ("What did {n} have for lunch?", "What was the lunch of {n}?"),
        "Who had {v} for lunch?",
        ("I had {v} for lunch.", "my lunch was {v}."),
        ("{n} had {v} for lunch.", "the lunch of {n} was {v}."),
    ),
    Attribute(
        "hobby",
        _HOBBIES,
        ("My hobby is {v}.", "I enjoy {v}."),
        ("What is my hobby?", "Which hobby do I have?"),
        "Your hobby is {v}.",
        ("The hobby of {n} is {v}.", "{n} enjoys {v}."),
        ("What is the hobby of {n}?", "Which hobby does {n} have?"),
        "Who enjoys {v}?",
        ("my hobby is {v}.", "I enjoy {v}."),
        ("the hobby of {n} is {v}.", "{n} enjoys {v}."),
    ),
    Attribute(
        "birthday",
        lexicon.MONTHS,
        ("My birthday is in {v}.", "I was born in {v}."),
        ("When is my birthday?", "In which month was I born?"),
        "You were born in {v}.",
        ("{n} was born in {v}.", "The birthday of {n} is in {v}."),
        ("When is the birthday of {n}?", "In which month was {n} born?"),
        "Who was born in {v}?",
        ("my birthday is in {v}.", "I was born in {v}."),
        ("the birthday of {n} is in {v}.", "{n} was born in {v}."),
    ),
    Attribute(
        "thing",
        tuple(article(thing) for thing, _ in lexicon.THINGS),
        ("I bought {v}.", "I went out and bought {v}."),
        ("What did I buy?", "Which thing did I buy?"),
        "You bought {v}.",
        ("{n} bought {v}.", "{n} went out and bought {v}."),
        ("What did {n} buy?", "Which thing did {n} buy?"),
        "Who bought {v}?",
        ("I bought {v}.", "it was {v} that I bought."),
        ("{n} bought {v}.", "it was {v} that {n} bought."),
    ),
    Attribute(
        "age",
        tuple(str(age) for age in range(11, 99)),
        ("I am {v} years old.", "My age is {v}."),
        ("How old am I?", "What is my age?"),
        "You are {v} years old.",
        ("{n} is {v} years old.", "The age of {n} is {v}."),
        ("How old is {n}?", "What is the age of {n}?"),
        "Who is {v} years old?",
        ("I am {v} years old.", "my age is {v}."),
        ("{n} is {v} years old.", "the age of {n} is {v}."),
    ),
)
