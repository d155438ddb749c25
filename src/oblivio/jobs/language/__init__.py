"""The main job for language models: texts to forget, a folder of Transformers or PEFT that has forgotten, a report."""
