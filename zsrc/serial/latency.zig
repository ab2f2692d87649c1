//! How long goroutines that could run waited for their turn: counts by length of the wait.
//!
//! One wake-up in eight on average is measured, as in Go's runtime (proc.go, gTrackingPeriod), and
//! none while no plugin has asked: `ready` finds out by the test of the ring's mask that it makes
//! anyway. A switch costs nothing more. A goroutine that is measured has `G.placed` set, so the M
//! that picks it looks closer: `belongsElsewhere`. Events of goroutines that run come by the same
//! way; while they are wanted, each wait is timed.
//!
//! A wait begins when the goroutine is made ready; for one that a timer wakes, when that was due:
//! how late timers are looked at is part of it. It ends when the goroutine is picked; for one that
//! runs on a certain thread, when that thread has come to it.
//!
//! The lengths are told apart to an eighth of a power of two, as in HdrHistogram: enough for
//! quantiles, and a count is found without a search.
const std = @import("std");

/// Lengths of one power of two are told apart so finely.
const fraction_bits = 3;
const fractions = 1 << fraction_bits;
/// Longer waits count as this long: 2^40 ns are 18 minutes.
const most_bits = 40;
pub const count = (most_bits - fraction_bits + 1) * fractions;
/// Of so many wake-ups one is measured, on average.
const period = 8;

/// Written with the lane's lock.
pub const Latency = struct {
    counts: [count]u64 = @splat(0),
    /// So many wake-ups are passed over.
    skip: u32 = 0,
    random: u32 = 0x9E37_79B9,

    /// Whether to measure this wake-up. Not simply each eighth one: where goroutines take turns,
    /// that could always be the same goroutine.
    pub fn chooses(l: *Latency) bool {
        if (l.skip > 0) {
            l.skip -= 1;
            return false;
        }
        // xorshift32, of Marsaglia's "Xorshift RNGs".
        l.random ^= l.random << 13;
        l.random ^= l.random >> 17;
        l.random ^= l.random << 5;
        l.skip = l.random % (2 * period - 1);
        return true;
    }

    pub fn note(l: *Latency, ns: u64) void {
        l.counts[indexOf(ns)] += 1;
    }
};

fn indexOf(ns: u64) usize {
    const most = (@as(u64, 1) << most_bits) - 1;
    const length: u64 = @min(ns, most);
    if (length < fractions) return @intCast(length);
    const shift: u6 = @intCast(63 - @as(u7, @clz(length)) - fraction_bits);
    const fraction: usize = @intCast((length >> shift) - fractions);
    return (@as(usize, shift) + 1) * fractions + fraction;
}

/// The longest wait that is counted at `index`.
pub fn longestOf(index: usize) u64 {
    if (index < fractions) return index;
    const shift: u6 = @intCast(index / fractions - 1);
    return ((@as(u64, fractions + index % fractions + 1)) << shift) - 1;
}

test "each length is counted where the longest is less than an eighth longer" {
    var ns: u64 = 0;
    while (ns < 1 << most_bits) : (ns += 1 + ns / 7) {
        const longest = longestOf(indexOf(ns));
        try std.testing.expect(longest >= ns and longest - ns <= ns / fractions);
        try std.testing.expectEqual(indexOf(ns), indexOf(longest));
        if (longest + 1 < 1 << most_bits)
            try std.testing.expectEqual(indexOf(ns) + 1, indexOf(longest + 1));
    }
    try std.testing.expectEqual(count - 1, indexOf(std.math.maxInt(u64)));
}

test "one wake-up in eight is chosen" {
    var l: Latency = .{};
    var chosen: usize = 0;
    for (0..80_000) |_| chosen += @intFromBool(l.chooses());
    try std.testing.expect(chosen > 9_000 and chosen < 11_000);
}
