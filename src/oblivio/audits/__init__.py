"""Audits: probes that measure a model beside its original and its references, and the verdict on what they found."""
