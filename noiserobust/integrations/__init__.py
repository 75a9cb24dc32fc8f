"""Guests in other people's training loops; each module needs the extra of its name.

``noiserobust.integrations.lightning``: ``pip install 'noiserobust[lightning]'``;
``noiserobust.integrations.huggingface``: ``pip install 'noiserobust[huggingface]'``.
"""
