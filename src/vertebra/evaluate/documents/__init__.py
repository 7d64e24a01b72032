"""Models of documents on pages whose answers are known: fields, evidence, confidences, arms on the same pages."""
