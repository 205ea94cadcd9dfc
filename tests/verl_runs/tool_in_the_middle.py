"""An agent loop that writes a tool's answer into the middle of the response, as multi-turn loops do."""

from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

TOOL_TOKENS = 3


class ToolInTheMiddle(SingleTurnAgentLoop):
    async def run(self, sampling_params, **kwargs):
        output = await super().run(sampling_params, **kwargs)
        cut = len(output.response_ids) // 2
        if cut == 0:
            return output
        answer = output.prompt_ids[:TOOL_TOKENS]

        def inserted(values, tool):
            return values[:cut] + tool + values[cut:]

        limit = self.response_length
        update = {
            "response_ids": inserted(output.response_ids, answer)[:limit],
            "response_mask": inserted(output.response_mask, [0] * len(answer))[:limit],
            "num_turns": 4,
        }
        if output.response_logprobs is not None:
            update["response_logprobs"] = inserted(output.response_logprobs, [0.0] * len(answer))[:limit]
        return output.model_copy(update=update)
