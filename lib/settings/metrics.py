METRICS: dict[str, str] = {"eval_loss": "min"}
