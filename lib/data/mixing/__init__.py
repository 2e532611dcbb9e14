"""How often each row of a stage is trained: weights, rules, negatives, replay, and the ledger of it all."""
