"""How an arithmetic story goes on after its first steps: gains, losses, multiples and closing twists."""

from __future__ import annotations

from dataclasses import dataclass

from suites.pocket._gsm8k_story import LIMIT, Story


@dataclass(frozen=True)
class Twist:
    """A last step that changes the question.

    Attributes:
        sign: `/` shares the value, `*` prices it, `-` subtracts it from a larger number.
        tell: Wordings of the sentence; `{b}` is its number.
        ask: Wordings of the question.
        label: Beginning of the answer line.
        unit: What the result counts.
    """

    sign: str
    tell: tuple[str, ...]
    ask: tuple[str, ...]
    label: str
    unit: str = "{u}"


@dataclass(frozen=True)
class Domain:
    """The continuations of one kind of situation; in the patterns `{b}` is the new number.

    Attributes:
        label: Beginning of the answer lines.
        plus: Wordings of a gain.
        minus: Wordings of a loss.
        times: Wordings of a multiple.
        moves: Whether after a multiple the story is about the second person.
        ask: Wordings of the plain question.
        twists: Possible last steps.
        twice: Wording of a multiple of two without a digit.
        unit: What is counted.
    """

    label: str
    plus: tuple[str, ...]
    minus: tuple[str, ...]
    times: tuple[str, ...]
    ask: tuple[str, ...]
    twists: tuple[Twist, ...] = ()
    twice: tuple[str, ...] = ()
    moves: bool = True
    unit: str = "{u}"


DOMAINS = {
    "things": Domain(
        label="{n} has",
        plus=("{n} buys {b} more {u}.", "{m} gives {n} {b} more.", "Then {n} finds {b} more {u}."),
        minus=("{n} gives {b} {u} to {m}.", "{n} loses {b} of them.", "Then {n} sells {b} {u}."),
        times=("{m} has {b} times as many {u} as {n}.", "{m} has {b} times as many."),
        twice=("{m} has twice as many {u} as {n}.", "{m} has twice as many."),
        ask=("How many {u} does {n} have now?", "How many {u} does {n} have in the end?"),
        twists=(
            Twist(
                "/",
                ("{n} shares them equally among {b} friends.", "{b} friends share the {u} of {n} equally."),
                ("How many {u} does each friend get?", "How many does each friend get?"),
                "Each friend gets",
            ),
            Twist(
                "*",
                ("{n} sells them all for {b} dollars each.", "{n} sells all the {u} at {b} dollars each."),
                ("How many dollars does {n} get?", "How much money does {n} get?"),
                "{n} gets",
                "dollars",
            ),
            Twist(
                "-",
                ("{n} wants to have {b} {u}.", "The goal of {n} is {b} {u}."),
                ("How many more {u} does {n} need?", "How many {u} are missing?"),
                "{n} needs",
            ),
        ),
    ),
    "money": Domain(
        label="{n} has",
        plus=("{n} earns {b} more dollars.", "{m} gives {n} {b} dollars.", "Then {n} finds {b} dollars."),
        minus=("{n} spends {b} dollars on a {t}.", "{n} gives {b} dollars to {m}.", "Then {n} pays {b} dollars."),
        times=("{m} has {b} times as much money as {n}.", "{m} has {b} times as many dollars."),
        twice=("{m} has twice as much money as {n}.", "{m} has twice as many dollars."),
        ask=("How many dollars does {n} have now?", "How much money does {n} have in the end?"),
        twists=(
            Twist(
                "-",
                ("{n} wants to buy a {t} for {b} dollars.", "A {t} costs {b} dollars."),
                ("How many more dollars does {n} need?", "How much money is missing for the {t}?"),
                "{n} needs",
                "dollars",
            ),
            Twist(
                "/",
                ("{n} shares the money equally among {b} friends.", "{b} friends share the money of {n} equally."),
                ("How many dollars does each friend get?", "How much does each friend get?"),
                "Each friend gets",
                "dollars",
            ),
        ),
        unit="dollars",
    ),
    "cost": Domain(
        label="{n} pays",
        plus=("{n} also buys a {t} for {b} dollars.", "{n} pays {b} dollars more for a {t}."),
        minus=("{n} gets {b} dollars off.", "{m} pays {b} dollars of this."),
        times=("{m} pays {b} times as much as {n}.", "{m} spends {b} times as much."),
        twice=("{m} pays twice as much as {n}.", "{m} spends twice as much."),
        ask=("How many dollars does {n} pay?", "How much does {n} pay in all?"),
        twists=(
            Twist(
                "-",
                ("{n} pays with {b} dollars.", "{n} gives the seller {b} dollars."),
                ("How many dollars does {n} get back?", "How much change does {n} get?"),
                "{n} gets back",
                "dollars",
            ),
            Twist(
                "/",
                ("{n} and friends, {b} people in all, share the cost equally.", "{b} friends share this cost equally."),
                ("How many dollars does each one pay?", "How much does each one pay?"),
                "Each one pays",
                "dollars",
            ),
        ),
        unit="dollars",
    ),
    "done": Domain(
        label="{n} {has_done}",
        plus=("Then {n} {does} {b} more {u}.", "The next day {n} {does} {b} {u}."),
        minus=("{m} {does} {b} {u} less than {n}.", "{m} {does} {b} less."),
        times=("{m} {does} {b} times as many {u} as {n}.", "{m} {does} {b} times as many."),
        twice=("{m} {does} twice as many {u} as {n}.", "{m} {does} twice as many."),
        ask=("How many {u} does {n} {do} in all?", "How many {u} does {n} {do}?"),
        twists=(
            Twist(
                "-",
                ("{n} wants to {do} {b} {u}.", "The goal of {n} is {b} {u}."),
                ("How many {u} are left?", "How many more {u} must {n} {do}?"),
                "There are",
                "{u} left",
            ),
        ),
    ),
    "place": Domain(
        label="There are",
        plus=("Then {b} more {u} {come}.", "Later {b} {u} {come}."),
        minus=("Then {b} {u} {go}.", "Later {b} of the {u} {go}."),
        times=("There are {b} {sites} like this.", "Each of {b} such {sites} has as many {u}."),
        ask=("How many {u} are there now?", "How many {u} are there in all?"),
        twists=(
            Twist(
                "/",
                ("The {u} are split into {b} equal groups.", "They are put into {b} equal groups."),
                ("How many {u} are in each group?", "How many are in each group?"),
                "Each group has",
            ),
            Twist(
                "-",
                ("There is room for {b} {u}.", "The {site} has room for {b} {u}."),
                ("How much room is left?", "For how many more {u} is there room?"),
                "There is room for",
                "more",
            ),
        ),
        moves=False,
    ),
    "age": Domain(
        label="{n} is",
        plus=("{m} is {b} years older than {n}.", "{m} is {b} years older."),
        minus=("{m} is {b} years younger than {n}.", "{m} is {b} years younger."),
        times=("{m} is {b} times as old as {n}.", "{m} is {b} times as old."),
        twice=("{m} is twice as old as {n}.", "{m} is twice as old."),
        ask=("How old is {n}?", "How many years old is {n}?"),
        unit="years",
    ),
    "heat": Domain(
        label="It is",
        plus=("Then it gets {b} degrees warmer.", "Later it rises by {b} degrees."),
        minus=("Then it gets {b} degrees colder.", "Later it falls by {b} degrees."),
        times=("An oven is {b} times as hot.", "The sand gets {b} times as hot."),
        ask=("How many degrees is it now?", "What is the temperature in degrees?"),
        moves=False,
        unit="degrees",
    ),
    "length": Domain(
        label="It is",
        plus=("{n} ties {b} meters of rope to it.", "Then {n} adds {b} meters."),
        minus=("{n} cuts off {b} meters.", "{m} cuts {b} meters off it."),
        times=("Another rope is {b} times as long.", "{m} has a rope {b} times as long."),
        twice=("Another rope is twice as long.", "{m} has a rope twice as long."),
        ask=("How many meters long is that rope?", "How long is that rope in meters?"),
        twists=(
            Twist(
                "/",
                ("{n} cuts it into {b} equal pieces.", "It is cut into {b} pieces of the same length."),
                ("How many meters long is each piece?", "How long is each piece in meters?"),
                "Each piece is",
                "meters",
            ),
        ),
        moves=False,
        unit="meters",
    ),
}


def _divisors(value: int) -> list[int]:
    return [k for k in range(2, 10) if value % k == 0 and value // k >= 2]


def _multipliers(story: Story) -> list[int]:
    return [k for k in range(2, 10) if 2 <= story.value and story.value * k <= LIMIT[story.difficulty - 1]]


def _twist(story: Story, domain: Domain) -> bool:
    usable = []
    for twist in domain.twists:
        options = _divisors(story.value) if twist.sign == "/" else _multipliers(story)
        room = twist.sign == "-" and story.value + 2 <= LIMIT[story.difficulty - 1]
        if room or (twist.sign != "-" and options):
            usable.append((twist, options))
    if not usable:
        return False
    story.slots.append("twist")
    twist, options = story.pick(usable)
    value = story.value
    if twist.sign == "-":
        number = value + story.addend()
        story.say(twist.tell, b=number)
        story.step(twist.label, number, "-", value, twist.unit)
    else:
        number = story.pick(options)
        story.slots.append(str(number))
        story.say(twist.tell, b=number)
        story.step(twist.label, value, twist.sign, number, twist.unit)
    story.ask = twist.ask
    return True


def _multiple(story: Story, domain: Domain) -> bool:
    options = _multipliers(story)
    # "9 such ships" is clear once; a second time nobody knows which.
    if not options or (story.copied and not domain.moves):
        return False
    story.copied = True
    story.slots.append("times")
    number = story.pick(options)
    story.slots.append(str(number))
    story.say(domain.twice if number == 2 and domain.twice else domain.times, b=number)
    if domain.moves:
        _move(story)
    story.step(domain.label, story.value, "*", number, domain.unit)
    return True


def _move(story: Story) -> None:
    story.fields["n"] = story.fields["m"]
    story.fields["m"] = story.name()


def _change(story: Story, domain: Domain, sign: str) -> None:
    if sign == "-" and (story.value < 5 or (story.difficulty > 1 and story.value < 8)):
        sign = "+"
    if sign == "+" and story.value + 13 > LIMIT[story.difficulty - 1]:
        sign = "-"
    number = story.addend() if sign == "+" else story.part(story.value)
    story.say(domain.plus if sign == "+" else domain.minus, b=number)
    if domain is DOMAINS["age"] or (sign == "-" and domain is DOMAINS["done"]):
        _move(story)
    story.step(domain.label, story.value, sign, number, domain.unit)


def change(story: Story) -> None:
    """A first sum or difference, for situations that begin with a plain number."""
    _change(story, DOMAINS[story.domain], story.pick("+-"))


def finish(story: Story) -> None:
    """Tell the remaining steps and leave the question in `story.ask`."""
    domain = DOMAINS[story.domain]
    story.ask = story.ask or domain.ask
    while story.left > 0:
        story.ask = domain.ask
        # From difficulty 3 on every story multiplies at least once; an early place keeps the product in range.
        must = story.difficulty >= 3 and not story.multiplied
        if (must or story.chance(0.2)) and _multiple(story, domain):
            continue
        if story.left == 1 and story.chance(0.5) and _twist(story, domain):
            continue
        _change(story, domain, story.pick("+-"))
