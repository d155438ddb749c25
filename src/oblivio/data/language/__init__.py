"""Texts: question and answer pairs, running texts and chats, by name or from files, and how they become tokens."""
