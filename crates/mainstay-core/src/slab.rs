//! Things by small numbers: each keeps its number for as long as it is there, and then the number may be another's.

use std::ops::{Index, IndexMut};

/// A list with holes. What is added gets the lowest free number. Indexing panics where nothing is.
#[derive(Clone, Debug)]
pub struct Slab<T> {
    entries: Vec<Option<T>>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    /// The number that the next one gets.
    pub fn vacancy(&self) -> usize {
        let vacant = self.entries.iter().position(Option::is_none);
        vacant.unwrap_or(self.entries.len())
    }

    /// Adds one and returns its number.
    pub fn add(&mut self, value: T) -> usize {
        let number = self.vacancy();
        self.put(number, value);
        number
    }

    /// Puts one at a number of the caller's choice; returns what was there.
    pub fn put(&mut self, number: usize, value: T) -> Option<T> {
        if number >= self.entries.len() {
            self.entries.resize_with(number + 1, || None);
        }
        self.entries[number].replace(value)
    }

    /// Takes one out.
    pub fn take(&mut self, number: usize) -> Option<T> {
        let taken = self.entries.get_mut(number).and_then(Option::take);
        while let Some(None) = self.entries.last() {
            self.entries.pop();
        }
        taken
    }

    /// That of this number, if there is one.
    pub fn get(&self, number: usize) -> Option<&T> {
        self.entries.get(number)?.as_ref()
    }

    /// That of this number, if there is one.
    pub fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.entries.get_mut(number)?.as_mut()
    }

    /// No number is as high as this.
    pub fn bound(&self) -> usize {
        self.entries.len()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        // The last one is never a hole.
        self.entries.is_empty()
    }

    /// All, with their numbers, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let entries = self.entries.iter().enumerate();
        entries.filter_map(|(number, entry)| Some((number, entry.as_ref()?)))
    }

    /// All, with their numbers, in their order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut T)> {
        let entries = self.entries.iter_mut().enumerate();
        entries.filter_map(|(number, entry)| Some((number, entry.as_mut()?)))
    }

    /// Takes all out.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

impl<T> FromIterator<T> for Slab<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self {
            entries: values.into_iter().map(Some).collect(),
        }
    }
}

impl<T> Index<usize> for Slab<T> {
    type Output = T;

    fn index(&self, number: usize) -> &T {
        match &self.entries[number] {
            Some(value) => value,
            None => panic!("nothing has number {number}"),
        }
    }
}

impl<T> IndexMut<usize> for Slab<T> {
    fn index_mut(&mut self, number: usize) -> &mut T {
        match &mut self.entries[number] {
            Some(value) => value,
            None => panic!("nothing has number {number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_kept_and_then_given_again() {
        let mut slab: Slab<char> = "abc".chars().collect();
        assert_eq!((slab.take(1), slab.take(1)), (Some('b'), None));
        assert_eq!(
            (slab[0], slab[2], slab.len(), slab.bound()),
            ('a', 'c', 2, 3)
        );
        assert_eq!((slab.add('d'), slab.add('e')), (1, 3));
        assert_eq!(slab.put(5, 'f'), None);
        assert_eq!(slab.vacancy(), 4);
        let all: Vec<_> = slab
            .iter()
            .map(|(number, value)| (number, *value))
            .collect();
        assert_eq!(all, [(0, 'a'), (1, 'd'), (2, 'c'), (3, 'e'), (5, 'f')]);
        assert_eq!((slab.take(5), slab.bound()), (Some('f'), 4));
        assert_eq!(slab.get(9), None);
    }
}
