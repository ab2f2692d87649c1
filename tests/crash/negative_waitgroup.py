# exits with 1
# stderr has ^ValueError: negative WaitGroup counter: 0 with -1 added$
import golibx

golibx.run(golibx.WaitGroup().done)
