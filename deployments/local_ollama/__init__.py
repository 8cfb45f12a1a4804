"""An Ollama-compatible HTTP server with a simulated or a small language model.

It serves the demo, the tests and the benchmarks of this project. The simulation does not translate:
it answers word by word from a small lexicon and takes as long as its settings say.
"""

from deployments.local_ollama.process import ServerProcess, local_server, local_servers
from deployments.local_ollama.server import LocalServer
from deployments.local_ollama.settings import Settings

__all__ = ["LocalServer", "ServerProcess", "Settings", "local_server", "local_servers"]
