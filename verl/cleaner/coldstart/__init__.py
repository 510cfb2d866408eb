"""Cold start: a small model that knows the tool-call format, makes natural mistakes and repairs part of them.

Real runs start from a checkpoint fine-tuned on tool conversations.  This package makes such a checkpoint in minutes: a
teacher with realistic slips talks to the real sandbox, and a small model is fine-tuned on the conversations.
"""
