# exits with 1
# stderr has ^golibx\.errors\.ChannelClosed: send on a closed channel$
import golibx


def main() -> None:
    ch: golibx.Chan[int] = golibx.Chan()
    ch.close()
    ch.send(1)


golibx.run(main)
