"""What must be so before any test imports a library: no test asks the network anything."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DS_ACCELERATOR"] = "cpu"
