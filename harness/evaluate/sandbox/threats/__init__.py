"""What hostile programs try, what stands against it, and the programs: the table of docs/sandbox.md and its tests."""

from __future__ import annotations

from harness.evaluate.sandbox.threats.answers import ANSWERS
from harness.evaluate.sandbox.threats.channel import CHANNEL
from harness.evaluate.sandbox.threats.files import FILES
from harness.evaluate.sandbox.threats.kernel import KERNEL
from harness.evaluate.sandbox.threats.legal import LEGAL
from harness.evaluate.sandbox.threats.memory import MEMORY
from harness.evaluate.sandbox.threats.network import NETWORK
from harness.evaluate.sandbox.threats.processes import PROCESSES
from harness.evaluate.sandbox.threats.resources import RESOURCES
from harness.evaluate.sandbox.threats.threat import PROMPT, TEST, Threat
from harness.evaluate.sandbox.threats.tricks import TRICKS

THREATS: tuple[Threat, ...] = (*FILES, *NETWORK, *PROCESSES, *KERNEL, *MEMORY, *RESOURCES, *CHANNEL, *ANSWERS, *TRICKS)

__all__ = ["LEGAL", "PROMPT", "TEST", "THREATS", "Threat"]
