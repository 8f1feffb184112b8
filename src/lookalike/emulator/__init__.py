"""A local stand-in for the embedding services: a real HTTP server that speaks their protocol.

It is to Azure AI Vision, Azure AI Model Inference and DashScope what Azurite is to Azure Storage: the same paths,
versions, checks and error bodies, recorded or computed vectors, and latency, rate limits and faults on demand. It
shares no code with the clients, so that a mistake in one of the two shows up between them.

    with Emulator(rate=10, faults={"503": 0.1}) as emulator:
        requests.post(emulator.url + "computervision/retrieval:vectorizeText", …)
        emulator.stats()
"""

from lookalike.emulator.recordings import expected_vector
from lookalike.emulator.server import SERVICE_FAULTS, Emulator
from lookalike.emulator.traffic import FAULT_KINDS, parse_fault

__all__ = ["FAULT_KINDS", "SERVICE_FAULTS", "Emulator", "expected_vector", "parse_fault"]
