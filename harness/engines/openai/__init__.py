"""Engine `openai`: any OpenAI-compatible server, through chat completions or completions."""

from harness.engines.openai.engine import OpenAIEngine
from harness.engines.openai.options import EndpointOptions

__all__ = ["EndpointOptions", "OpenAIEngine"]
