"""Write the support tickets that the tests classify into this file's folder: triage/{train,val,test}.jsonl.

Each line is {"text": ..., "label": ...}. Running this again gives the same files.

Usage, in the project's folder: PYTHONPATH=. python tests/data/make_triage.py
"""

from pathlib import Path

from benchmarks.simulated.domains import write_task

# With this one, scores on val and test are close to the prompt's quality under the endpoint's default seed.
SEED = 130
FOLDER = Path(__file__).resolve().parent / "triage"

if __name__ == "__main__":
    write_task(FOLDER, "tickets", SEED)
