"""Chat and embedding models.

A call goes through ``CachedModel(RetryingModel(LimitedModel(OpenAIModel(Endpoint(...)))))``; each layer is a model.
"""
