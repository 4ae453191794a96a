"""Content-addressed checkpoints, results and refs that survive crashes. Knows no torch."""

from weightgate.store.claims import Claim
from weightgate.store.collect import Ages, Collected
from weightgate.store.digest import canonical_json, digest_bytes, digest_file, digest_json
from weightgate.store.fs import require_free_space
from weightgate.store.journal import RefMove
from weightgate.store.records import Manifest, Result, TensorData, TensorEntry
from weightgate.store.resume import ResumePoint, clear, read_newest, write_resume_point
from weightgate.store.states import Recorded, Standing, State, state_of
from weightgate.store.store import Store
from weightgate.store.tensor_files import read_safetensors_file, write_safetensors
from weightgate.store.unfinished import UnfinishedRun
from weightgate.store.verify import Flaws, Problem

__all__ = [
    "Ages",
    "Claim",
    "Collected",
    "Flaws",
    "Manifest",
    "Problem",
    "Recorded",
    "RefMove",
    "Result",
    "ResumePoint",
    "Standing",
    "State",
    "Store",
    "TensorData",
    "TensorEntry",
    "UnfinishedRun",
    "canonical_json",
    "clear",
    "digest_bytes",
    "digest_file",
    "digest_json",
    "read_newest",
    "read_safetensors_file",
    "require_free_space",
    "state_of",
    "write_resume_point",
    "write_safetensors",
]
