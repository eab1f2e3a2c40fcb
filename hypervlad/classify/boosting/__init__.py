"""A softmax classifier that boosts trees from cross-fitted linear margins, based on xgboost."""
