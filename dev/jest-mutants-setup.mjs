import fc from 'fast-check';

// One failure is enough to kill a mutant. Shrinking it would take most of the time.
fc.configureGlobal({ endOnFailure: true });
