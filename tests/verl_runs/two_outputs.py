"""An agent loop whose sessions have two outputs: the response cut in the middle, the first part being prompt of the
second."""

from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop


class TwoOutputs(SingleTurnAgentLoop):
    async def run(self, sampling_params, **kwargs):
        whole = await super().run(sampling_params, **kwargs)
        cut = len(whole.response_ids) // 2
        if cut == 0:
            return whole
        halves = []
        for part in (slice(0, cut), slice(cut, None)):
            update = {
                "prompt_ids": whole.prompt_ids + whole.response_ids[: part.start],
                "response_ids": whole.response_ids[part],
                "response_mask": whole.response_mask[part],
                "extra_fields": dict(whole.extra_fields),
            }
            if whole.response_logprobs is not None:
                update["response_logprobs"] = whole.response_logprobs[part]
            halves.append(whole.model_copy(update=update))
        return halves
