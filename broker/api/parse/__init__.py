"""Requests in: headers and bodies, with every error named by where it is."""

from __future__ import annotations

from broker.api.parse.batch import BatchReleaseRequest, BatchRequest
from broker.api.parse.bind import Asked, BindRequest, bind_item, bind_request
from broker.api.parse.body import body_as, canonical, checked
from broker.api.parse.change import ChangeRequest, HandOverRequest, RecordingPatch, merged_metadata
from broker.api.parse.events import EventsQuery, events_query
from broker.api.parse.fields import Callback, CalleeTtl, Phone, Recording, Tones, UserData
from broker.api.parse.header import body_of, deadline_s, idempotency_key, if_match, respond_async
from broker.api.parse.listing import ListRequest, ReleaseQuery, SearchRequest, list_query, query_of, release_query
from broker.api.parse.reach import ReachQuery, ReachRequest, reach_query
from broker.api.parse.told import SummaryQuery, ToldQuery, ToldSearch, summary_query, told_query

__all__ = [
    "Asked",
    "BatchReleaseRequest",
    "BatchRequest",
    "BindRequest",
    "Callback",
    "CalleeTtl",
    "ChangeRequest",
    "EventsQuery",
    "HandOverRequest",
    "ListRequest",
    "Phone",
    "ReachQuery",
    "ReachRequest",
    "Recording",
    "RecordingPatch",
    "ReleaseQuery",
    "SearchRequest",
    "SummaryQuery",
    "ToldQuery",
    "ToldSearch",
    "Tones",
    "UserData",
    "bind_item",
    "bind_request",
    "body_as",
    "body_of",
    "canonical",
    "checked",
    "deadline_s",
    "events_query",
    "idempotency_key",
    "if_match",
    "list_query",
    "merged_metadata",
    "query_of",
    "reach_query",
    "release_query",
    "respond_async",
    "summary_query",
    "told_query",
]
