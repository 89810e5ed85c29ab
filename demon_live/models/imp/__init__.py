"""models/imp"""
