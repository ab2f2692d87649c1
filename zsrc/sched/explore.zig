//! Explored runs: the order in which goroutines run is drawn by lot, the same for the same seed.
//!
//! The scheduler of a plain run is fair and quick, and so takes the same few of all possible orders
//! over and over. A test that looks for a race wants the others: at every switch one of all that
//! can run goes on (`chooseNext` in processor.zig), and a goroutine may have to give way at each of
//! the program's calls (`giveWay`; zsrc/python/points.zig says which those are). Nothing is added
//! to the paths of a plain run for it: `attention` stays set, so that pickNext takes its slow path.
const std = @import("std");

/// Where virtual time begins: at a whole second, so that times as Python's floats are exact for
/// longer.
pub fn firstOf(now_ns: u64) u64 {
    return (now_ns / std.time.ns_per_s + 1) * std.time.ns_per_s;
}

/// Steele, Lea and Flood's SplitMix64: seeds that lie close together give streams that do not.
pub const Chance = struct {
    state: u64 = 0,

    pub fn init(seed: u64) Chance {
        return .{ .state = seed };
    }

    pub fn next(c: *Chance) u64 {
        c.state +%= 0x9e3779b97f4a7c15;
        var z = c.state;
        z = (z ^ z >> 30) *% 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) *% 0x94d049bb133111eb;
        return z ^ z >> 31;
    }

    /// From 0 to n - 1; 0 for n of 0.
    pub fn below(c: *Chance, n: usize) usize {
        return @intCast(@as(u128, c.next()) * n >> 64);
    }
};

test "chance is fair, and the same for a seed" {
    var counts: [5]u32 = @splat(0);
    for (1..1001) |seed| {
        var a: Chance = .init(seed);
        var b: Chance = .init(seed);
        try std.testing.expectEqual(a.next(), b.next());
        counts[a.below(5)] += 1;
        try std.testing.expectEqual(0, a.below(0));
    }
    for (counts) |count| try std.testing.expect(count > 150 and count < 250);
}
