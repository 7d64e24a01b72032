"""Metrics of documents, each under its own name: of answers, of fields, of tags, of tables, of evidence."""
