"""Content-addressed checkpoints, results and refs that survive crashes. Knows no torch."""

from weightgate.store.collect import Collected
from weightgate.store.digest import canonical_json, digest_bytes, digest_file, digest_json
from weightgate.store.fs import require_free_space
from weightgate.store.journal import RefMove
from weightgate.store.records import Manifest, Result, TensorData, TensorEntry
from weightgate.store.store import Store
from weightgate.store.verify import Problem

__all__ = [
    "Collected",
    "Manifest",
    "Problem",
    "RefMove",
    "Result",
    "Store",
    "TensorData",
    "TensorEntry",
    "canonical_json",
    "digest_bytes",
    "digest_file",
    "digest_json",
    "require_free_space",
]
