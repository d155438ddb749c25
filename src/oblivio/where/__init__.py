"""Wheres that several methods share: which weights may move."""

from oblivio.core.where import Names as names
from oblivio.where.head import Head as head
from oblivio.where.lora import lora
from oblivio.where.saliency import saliency
from oblivio.where.surviving import surviving

__all__ = ["head", "lora", "names", "saliency", "surviving"]
