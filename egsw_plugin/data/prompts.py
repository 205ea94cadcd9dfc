r"""Prompt styles: how a question becomes the messages of a chat.

The instructions are system messages: that is where Qwen2.5-Math's chat template has its own, which they then replace;
in the user's message they would come twice. DAPO's is part of the user's message, as its authors published it.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Style:
    """A system message (none if empty) and what stands before and after the question."""

    system: str = ""
    before: str = ""
    after: str = ""

    def messages(self, question: str) -> list[dict[str, str]]:
        r"""The chat that asks ``question``.

        >>> BOXED.messages("1+1?")[0]["content"]
        'Please reason step by step, and put your final answer within \\boxed{}.'
        >>> [message["role"] for message in BOXED.messages("1+1?")], [m["role"] for m in DAPO.messages("1+1?")]
        (['system', 'user'], ['user'])
        """
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": f"{self.before}{question}{self.after}"}]

    def question(self, content: str) -> str | None:
        """The question within a user's message of this style; None if the message is not of this style.

        >>> DAPO.question(DAPO.messages("1+1?")[0]["content"])
        '1+1?'
        >>> DAPO.question("1+1?") is None
        True
        """
        if len(content) < len(self.before + self.after):
            return None
        if not (content.startswith(self.before) and content.endswith(self.after)):
            return None
        return content.removeprefix(self.before).removesuffix(self.after)


PLAIN = Style()  # the question alone, for models that need no instruction or whose chat template has one
BOXED = Style(r"Please reason step by step, and put your final answer within \boxed{}.")
THINK = Style(
    r"Please reason step by step between <think> and </think>, and then put your final answer within \boxed{}."
)
CHOICE = Style(r"Please reason step by step, and put the letter of your answer within \boxed{}.")
CHOICE_THINK = Style(
    r"Please reason step by step between <think> and </think>, and then put the letter of your answer within \boxed{}."
)
DAPO = Style(
    before="Solve the following math problem step by step. The last line of your response should be of the form "
    "Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n",
    after='\n\nRemember to put your answer on its own line after "Answer:".',
)
