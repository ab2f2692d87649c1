//! Priorities: which goroutines go before others, and that none waits for ever for that.
//!
//! A goroutine of priority high or low is in no queue of the others' while it waits for its turn,
//! but in `high` or `low`. What picks the next one costs nothing more for that: as long as there is
//! a goroutine in `high`, `attention` stays set, so that pickNext takes its slow path; and no code
//! looks into `low` before all other queues are empty. To make a goroutine ready takes one branch
//! (`rank`).
//! What keeps the others from starving, in turns that last a slice each at most:
//!  - Every `others_turns`-th turn is not for `high`. The run queue has it, which goes before
//!    `runnext` then; and if it is empty, one that was preempted.
//!  - A high goroutine goes first when it begins, is woken or comes back from a blocking call. One
//!    that was preempted, or gave way, waits in the run queue: to compute, or to let others run in
//!    a loop, gains it nothing.
//!  - Every `join_turns`-th turn the first in `low` joins the run queue, whatever is in there. So
//!    does the one that sysmon has seen wait there for `low_slices` slices, for others may take
//!    long turns. In there it is one like all.
//!
//! `rank` is what counts now, `priority` what the program has said: one that a plugin demotes is
//! low until it is woken again. Or it gives one a longer slice, until that one waits (`judge`).
//!
//! In an explored run priorities decide nothing: any order is possible there, and drawn.
//!
//! The order of turns is explored: zsrc/check/models/ranks.zig.
const sysmon = @import("sysmon.zig");

/// Of the others. Also how often the one that was woken last goes first.
pub const others_turns = 64;
/// Also how often the network is looked at while there is work. A multiple of `others_turns`.
pub const join_turns = 256;
/// How many slices sysmon sees a goroutine wait in `low` before that one joins the others.
pub const low_slices = 10;

/// The part of a Lane that is about them. `Turns.others` is `others_turns`, and it may have a bug.
pub fn Ranks(comptime Self: type, comptime Turns: type) type {
    return struct {
        const G = @typeInfo(@FieldType(Self, "runnext")).optional.child;
        const planted = if (@hasDecl(Turns, "planted")) Turns.planted else .none;

        /// One that waited, or is new, and is high or low, or was demoted. Goes to its queue.
        pub noinline fn queueRanked(self: *Self, g: G) void {
            g.rank = g.priority;
            enqueue(self, g);
        }

        fn enqueue(self: *Self, g: G) void {
            if (self.options.explore) return self.runq.push(g);
            switch (g.rank) {
                .high => {
                    self.high.push(g);
                    self.attention.store(true, .release);
                },
                .normal => self.runq.push(g),
                .low => self.low.push(g),
            }
        }

        /// One that comes back from a blocking call and finds its P taken.
        pub noinline fn requeueRanked(self: *Self, g: G) void {
            enqueue(self, g);
        }

        /// Where one waits that gave way.
        pub inline fn queueOf(self: *Self, g: G) *@FieldType(Self, "runq") {
            return if (g.rank == .low and !self.options.explore) &self.low else &self.runq;
        }

        /// Where one waits that used up its slice. The runtime's own helpers limit themselves: they
        /// are not put behind the others.
        pub fn queueOfPreempted(self: *Self, g: G) *@FieldType(Self, "runq") {
            if (g.system) return &self.runq;
            if (self.options.explore) return &self.preempted;
            return switch (g.rank) {
                .high => &self.runq,
                .normal => &self.preempted,
                .low => &self.low,
            };
        }

        /// After `attention` was cleared: it is for those in `high` too.
        pub inline fn keepAttention(self: *Self) void {
            if (self.high.len > 0 and planted != .forgets) self.attention.store(true, .release);
        }

        /// The next one, unless the turn is the others'. What the turn is counted as is up to them
        /// then.
        pub noinline fn pickHigh(self: *Self) ?G {
            if (planted != .never_others and (self.turn +% 1) % Turns.others == 0) return null;
            const g = self.high.pop() orelse return null;
            self.turn +%= 1;
            return g;
        }

        /// The one that waits in `low`, if all other queues are empty; but in the others' turn
        /// there may be one in `high`.
        pub noinline fn pickLast(self: *Self) ?G {
            if (self.high.pop()) |g| return g;
            if (self.spares_low) return null;
            self.low_since = 0;
            return self.low.pop();
        }

        /// What a plugin says of a goroutine that was preempted at `since`: it is low until it next
        /// waits, or has slices of `slice_ns` if that is not 0. False if it has ended or waited, or
        /// is the runtime's own.
        pub fn judge(self: *Self, id: u64, since: u64, slice_ns: u64) bool {
            var it = self.all_g;
            const g = while (it) |g| : (it = g.all_next) {
                if (g.id == id) break g;
            } else return false;
            const waits = g.status == .waiting or g.status == .parking;
            if (g.system or waits or g.parked_at >= since) return false;
            if (slice_ns == 0) {
                g.rank = .low;
            } else {
                g.slice_ns = slice_ns;
                g.slice_began = since;
            }
            return true;
        }

        /// Whether it goes on though a slice has ended, since it has a longer one.
        pub noinline fn hasLongerSlice(self: *Self, g: G, now: u64) bool {
            if (self.options.explore) return false;
            if (g.parked_at >= g.slice_began) {
                g.slice_ns = 0; // it has waited
                return false;
            }
            g.slice_began = now -| hasRun(self, g, now);
            if (now -| g.slice_began >= g.slice_ns) return false;
            g.slice_tick = self.bumpTick();
            return true;
        }

        /// How long it has run without a wait, as far as sysmon has seen.
        pub fn hasRun(self: *Self, g: G, now: u64) u64 {
            if (g.slice_ns != 0 and g.slice_tick == self.tick.raw) return now -| g.slice_began;
            return sysmon.hasRun(self, now);
        }

        /// Every `join_turns`-th turn.
        pub fn letLowJoin(self: *Self) void {
            if (planted == .low_never_joins) return;
            const g = self.low.pop() orelse return;
            self.low_since = 0;
            self.runq.push(g);
        }

        /// sysmon has asked: goroutines of a low priority, or that were preempted, wait.
        pub fn joinWhenDue(self: *Self, now: u64, slice_ns: u64) void {
            if (self.low.len == 0) {
                self.low_since = 0;
            } else if (self.low_since == 0) {
                self.low_since = now;
            } else if (now -| self.low_since > low_slices * slice_ns) {
                letLowJoin(self);
            }
        }
    };
}
