"""What the delivery would make of a dialogue that was played."""

from player import Played

from relay.delivery.values import TransactionResult
from relay.smtp.transaction import Exchange


def answers_of(played: Played, index: int = 0) -> TransactionResult:
    """The result of the transaction with this number, as `delivery.session` composes it."""
    exchange: Exchange = played.exchanges[index]
    is_finished = exchange in played.finished
    return TransactionResult(
        transaction=exchange.transaction,
        replies=tuple(exchange.recipients),
        mail=exchange.mail,
        data=exchange.data,
        final=exchange.final,
        broken=None if is_finished else played.broken,
        dot_sent=exchange.dot_sent,
        is_local=exchange.is_local,
    )
