"""The words that all pocket skills draw from: few enough that most become single tokens of a small BPE."""

from __future__ import annotations

NAMES = tuple(
    "Anna Ben Carla David Emma Felix Grace Henry Iris Jack Kate Leo Maria Nora Oscar Paul Rosa Sam Tom Vera "
    "Alice Bruno Clara Daniel Ella Frank Hugo Ivan Julia Karl Lena Mark Nina Olga Peter Ruth Sara Theo Uma Will".split()
)
PLACES = tuple(
    "Paris London Rome Oslo Berlin Madrid Vienna Lisbon Dublin Prague Athens Cairo Delhi Tokyo Lima Boston "
    "Denver Dallas Austin Seattle".split()
)
SITES = tuple(
    "school market park library station museum farm garden office hotel harbor bridge hospital bakery theater "
    "factory castle river forest beach".split()
)
# (singular, plural)
THINGS = tuple(
    (w.split("/")[0], w.split("/")[1])
    for w in (
        "apple/apples book/books pencil/pencils card/cards coin/coins egg/eggs flower/flowers stamp/stamps "
        "shell/shells stone/stones button/buttons ticket/tickets cookie/cookies lemon/lemons orange/oranges "
        "marble/marbles bottle/bottles box/boxes candle/candles chair/chairs cup/cups lamp/lamps plate/plates "
        "ring/rings rope/ropes shirt/shirts spoon/spoons toy/toys bag/bags hat/hats"
    ).split()
)
ANIMALS = tuple("cat dog horse cow duck goat sheep rabbit fox bear wolf owl mouse frog eagle lion tiger fish".split())
FOODS = tuple("bread soup rice cheese salad pasta cake honey fruit tea coffee milk juice butter pizza".split())
COLORS = tuple("red blue green yellow black white brown pink gray purple".split())
JOBS = tuple(
    "teacher doctor baker farmer driver painter writer singer nurse pilot sailor lawyer chef judge guard "
    "engineer".split()
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
ADJECTIVES = tuple(
    "big small old new fast slow quiet loud happy sad bright dark warm cold soft hard clean heavy light strong "
    "rich poor long short wide narrow sweet fresh brave calm".split()
)
# (base, past)
VERBS = tuple(
    (w.split("/")[0], w.split("/")[1])
    for w in (
        "find/found buy/bought sell/sold paint/painted open/opened close/closed visit/visited build/built "
        "carry/carried watch/watched clean/cleaned repair/repaired follow/followed help/helped call/called "
        "meet/met teach/taught write/wrote read/read sing/sang plant/planted cook/cooked draw/drew move/moved"
    ).split()
)
TOPICS = tuple(
    "music history science travel sports weather gardening cooking painting reading sailing cycling dancing chess "
    "football".split()
)
